"""The denoiser explorer of lessons 3 and 5."""
