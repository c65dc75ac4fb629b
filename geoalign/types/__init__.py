"""The nouns: Stack, Warp, Match, Alignment, Changes. Rooms never import each other; they meet in these."""
