"""The API over HTTP: the same ASGI application behind API Gateway and on this machine.

`application.create` joins it, `services` builds what its routes work with, `access` says who may see what. The routes
stand by subject in `routes/`; what they answer with in `views`. What is known of captions stands in `captions`.
"""
