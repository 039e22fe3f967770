"""media-captions: what happens between an upload and its caption.

The rooms of this package know nothing of Lambda, of the command line or of the local stack, and importing one reads no
environment and builds no client: settings, stores and clients are passed in.
"""
