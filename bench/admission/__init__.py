"""How long a pod's creation waits for a hook: real AdmissionReviews over TLS to the real listener, in another process.

No API server and no nodes here: what is measured is decided from memory alone."""
