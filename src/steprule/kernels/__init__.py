"""The engines that run a program at memory speed, one module per machine; none imports another."""
