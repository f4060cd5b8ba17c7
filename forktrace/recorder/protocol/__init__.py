"""What the launcher and the recorder say to one another: messages and orders on one side, the same on the other."""
