"""Speech over HTTP, as OpenAI's clients ask for it, and a page to hear it: `python -m tts.serve`."""
