"""What a user passes as ``env``, in samplers."""
