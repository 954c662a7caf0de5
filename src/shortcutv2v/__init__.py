"""Make a pretrained video-to-video generator fast."""
