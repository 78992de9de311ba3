"""How fast a model speaks, and in how much memory: ``python -m tts.benchmark``.

Every figure is the median over rounds with its spread. In a round everything that is compared takes its turn, ours
and a plain reference (``reference.py``) beside it, so that ratios hold on a machine that is also busy with something
else. One file a section; ``docs/speed.md`` says what each figure means.
"""
