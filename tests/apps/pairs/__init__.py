"""The same tables in two apps: ``plain`` has plain receivers, ``critical`` has critical ones."""
