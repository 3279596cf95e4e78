"""The only code that touches payload packets: TUN frames in, sealed UDP trains out, and back."""
