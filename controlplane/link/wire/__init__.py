"""The link in protobuf and gRPC; nothing else in the control plane knows either.

``calls`` are the calls and what they carry besides frames, ``hearing`` reads agents' frames, ``saying`` makes ours.
Only shapes: what a frame makes happen is ``server``'s and ``fleet``'s.
"""
