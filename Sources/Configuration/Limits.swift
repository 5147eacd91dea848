package import Primitives

extension Configuration {
    /// Bounds on what one client can make a node hold or wait for. 0 means none.
    package struct Limits: Sendable {
        /// The request line. 8 KiB is what RFC 9112 §3 asks everyone to take at the least; beyond it 414.
        package var requestLineBytes = ByteCount.kibibytes(8)
        /// All header fields: room for large cookies and tokens; beyond it 431.
        package var headerBytes = ByteCount.kibibytes(32)
        /// Header fields: browsers send about 20; each costs a look-up, and a head full of two-byte fields would cost
        /// thousands.
        package var headerCount = 100
        /// A request's body: none by default, since bodies are streamed and cost no memory. Beyond it 413.
        package var bodyBytes = ByteCount.bytes(0)
        /// From a head's first byte to its last: one packet on a good line; 10 s lets bad ones live. Then 408.
        package var headerTimeout = TimeSpan.seconds(10)
        /// A body, or a client that reads its answer, without any progress. Then 408, or the end of the connection.
        package var bodyTimeout = TimeSpan.seconds(30)
        /// Between two requests: longer than the minute that browsers keep connections for.
        package var idleTimeout = TimeSpan.seconds(75)
        /// Requests on one connection: none by default; a bound helps to spread long-lived clients over new nodes.
        package var requestsPerConnection = 0
        /// Connections of all clients; the descriptor limit bounds them in any case.
        package var connections = 0
        /// Connections of one client address (IPv6: of its /64).
        package var connectionsPerClient = 0
    }
}
