"""Model folders on a hub: the Hugging Face hub, or a folder that acts as one.

A folder goes up with its card, its licence, its evaluation figures and a checksum of every file, and comes back whole
or with an error. A name is ``owner/model``, of which ``owner/model@revision`` pins one state: a tag, or the revision's
own name, which never means anything else later.

>>> from tts import TTS
>>> tts = TTS.load("owner/model@v1")
"""

from tts.hub.hubs import FolderHub, Hub, HuggingFaceHub, hub_of
from tts.hub.names import Name, located

__all__ = ["FolderHub", "Hub", "HuggingFaceHub", "Name", "hub_of", "located"]
