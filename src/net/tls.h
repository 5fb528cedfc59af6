// TLS of the server, in a translation unit of its own.
#pragma once

#include "net/connection.h"

namespace metier::net {

class TlsContext;
// TLS 1.2 or newer. Errors: invalid with the file, or with what the two do to each other.
Result<std::shared_ptr<TlsContext>> load_tls(const std::string& certificate,
                                             const std::string& key);
std::unique_ptr<ConnectionBase> make_tls_connection(std::shared_ptr<ServerCore> core, Peer peer,
                                                    PlainSocket socket, const TlsContext& tls);

}  // namespace metier::net
