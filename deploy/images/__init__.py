"""The two images, built from Dockerfile.api and Dockerfile.agent by buildah, kept by the hash of what they are made of.

``base`` makes a Debian image by debootstrap to build from, ``building`` builds, ``layout`` is what came out and how
it gets into a registry. ``inside/`` are the scripts that the Dockerfiles run. Needs root, buildah and skopeo.
"""
