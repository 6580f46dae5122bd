"""What makes an algorithm of SB3 an asynchronous one, be it on-policy or off-policy."""
