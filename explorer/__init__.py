"""RapidIn Explorer: which training examples made this model say that?"""
