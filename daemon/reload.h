/* The configuration read again (SIGHUP). Loop thread. */
#pragma once

struct sk_server;

/* Limits of users and the log level hold from now on; what else has changed is named, and holds after the next start. A
 * mistake is logged and changes nothing. The service manager is told of both ends. */
void sk_server_reload(struct sk_server *server);
