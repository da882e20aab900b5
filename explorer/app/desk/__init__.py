"""Where browsers hand in their questions: work for the engine, scheduled on its one worker.

In come questions of a browser's session; out come records of what is on its way, to be
read from any thread. Streamlit is unknown here.
"""
