"""What tunrouter is compared with: each module joins a pod on one host of a lab to a pod on another, in its own way."""
