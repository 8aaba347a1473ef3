"""`virtualchain doctor`: checks of this machine, the node, the database and the deployment."""
