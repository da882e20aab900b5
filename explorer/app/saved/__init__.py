"""What was kept, shown again from records alone: saved questions, notes on them, results of evaluations.

It needs neither model nor cache.
"""
