"""News of jobs to those who watch: the hub, its events and their history. Who is connected by
what (WebSocket) is ``api``'s; nothing here waits for a reader."""
