"""Images on the web: addresses that may be asked, the time an answer may take, requests."""
