/* empty on purpose: BCC includes it, the probes need nothing of it */
