"""Put adapters together: a pure plan, its execution, a pinned file and a report beforehand."""
