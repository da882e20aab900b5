"""What pages share: browser components, fields, charts, filters, messages, words explained.

In come plain values; out come drawn things and what was clicked in them. They know
nothing of answers and rankings.
"""
