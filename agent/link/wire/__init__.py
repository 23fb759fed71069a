"""The link in protobuf and gRPC; nothing else in this room knows either.

``calls`` are the calls and what they carry besides frames, ``saying`` makes the agent's frames, ``hearing`` reads the
control plane's. Only shapes: what a frame makes happen is ``conversation``'s.

Source: protos/snap/v1/link.proto.
"""
