"""The session with the control plane: dial, prove who we are, send news, take jobs, begin again.

``wire`` is the only part here that knows protobuf. What a frame makes happen is behind small
protocols; jobs go on while the link is down.
"""
