"""HTTP as every caller meets it: its oddities, places in lists, and one shape for all that goes wrong.

cursors             places in lists, as text that whoever gets it keeps as it is
exception_handlers  every failure in OpenAI's shape, every answer with a request id
page_headers        what every page tells a browser: what it may load, and who may frame or keep it
protocol            HTTP as callers speak it: HEAD, HTTP/1.0, bodies in another form, other origins
"""
