"""The Streamlit side of the explorer."""
