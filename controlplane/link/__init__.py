"""The agents' side of the house: the gRPC server that they dial, who is connected, and what is
sent to and taken from them. Only ``wire`` knows protobuf and gRPC's statuses; no SQL, no HTTP."""
