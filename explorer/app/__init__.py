"""The Streamlit app: what pages are made of.

In come what a person clicks and types; out come pages. It gets numpy arrays and records,
never a tensor, and computes nothing itself: `desk` hands work to the one worker.
"""
