list(APPEND trigger_links OpenSSL::SSL)
