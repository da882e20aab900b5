"""The words that a newcomer doesn't know, each explained once: for tooltips, the help sheet and the tour."""

WORDS = {
    "Influence": "How much a small training step on one example would change how likely the model is to say what you "
    "asked about. It says what a step would do, not what the model would be had it never seen the example.",
    "Raised it, proponent": "A training example with a positive influence: training on it made the answer more likely.",
    "Lowered it, opponent": "A training example with a negative influence: training on it made the answer less likely.",
    "RapidGrad, or sketch": "A short random projection of an example's gradient, computed once and kept in the cache. "
    "Comparing RapidGrads estimates every influence at once, with a little noise.",
    "Exact": "Computed from the full gradients, without the sketches' noise. Cards become exact one by one; until then "
    "their bar is hollow.",
    "Checksum": "The values of an example's tokens must average to its score. Each card compares them with a second, "
    "independent computation, and warns where they don't agree.",
    "Loss of each token": "One meaning of a training token's colour: what learning to say this very token did.",
    "Input positions": "The other meaning: what of the example's influence passes through this place, its prompt "
    "included. Positions add up to the score.",
    "Unrelated prompts": "The cache keeps what every example scores on 200 everyday prompts. A score is unusual only "
    "if it is unusual for that very example.",
    "Evidence": "Strong where at most 1% of unrelated prompts have a top 10 that stands out as much, some where at "
    "most 5% do, and else no clear source.",
    "Marks of words": "A word of the answer is underlined in colour where training examples stand out for it (dotted: "
    "some evidence), thinly where it stands word for word in the data, and grey where the base model says it, too.",
    "Nat": "The unit of a log-probability: a token moved by 1 nat became 2.7 times as likely.",
}
"""Word → what it means here, in a sentence or two."""


def meaning(*words: str) -> str:
    """What some of the words mean, for a tooltip."""
    return "\n\n".join(f"**{word}**: {WORDS[word]}" for word in words)
