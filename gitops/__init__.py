"""The hub: Git in, decisions, signed overlays out, reports folded back in."""
