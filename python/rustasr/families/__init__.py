"""One module per model family: its options, its prompts and its policy, from encoder output to result."""
