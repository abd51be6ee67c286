"""What an adapter is and how one is made. Pure: no orchestration, registry, object store or command line here."""
