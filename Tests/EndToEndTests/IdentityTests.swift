import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Who the client is")
struct IdentityTests {
    /// Everybody on 127.0.0.1 is a trusted proxy; clients are 127.0.0.9 and those that headers name.
    private static func file(_ backend: RecordingBackend, _ gateway: String) -> File {
        var file = File([backend])
        file.gateway = "trustedProxies: [\"127.0.0.1/32\", \"10.0.0.0/8\"], \(gateway)"
        return file
    }

    private static func binary(command: UInt8 = 0x21, family: UInt8 = 0x11, _ payload: [UInt8]) -> [UInt8] {
        [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, command, family]
            + [UInt8(payload.count >> 8), UInt8(payload.count & 0xff)] + payload
    }

    private static let request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"

    static let headers: [(name: String, bytes: [UInt8], client: String)] = [
        ("version 1", Array("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n".utf8), "203.0.113.7"),
        ("version 1, IPv6", Array("PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".utf8), "2001:db8::7"),
        ("version 1, unknown", Array("PROXY UNKNOWN\r\n".utf8), "127.0.0.1"),
        ("version 2", binary([203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]), "203.0.113.7"),
        (
            "version 2 with extensions", binary([203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80, 4, 0, 3, 1, 2, 3]),
            "203.0.113.7"
        ),
        ("version 2, local", binary(command: 0x20, family: 0, []), "127.0.0.1"),
    ]

    @Test("a trusted peer's PROXY header names the client, once a connection", arguments: headers)
    func proxyHeader(row: (name: String, bytes: [UInt8], client: String)) throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(Self.file(backend, "proxyProtocol: true"))
            let wire = try node.connect()
            // What the client claims behind a balancer of bytes is worth nothing.
            try wire.send(row.bytes + Array("GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n".utf8))
            #expect(try wire.readResponse().status == 200)
            try wire.send(Self.request)
            #expect(try wire.readResponse().status == 200)
            #expect(backend.requests.map { $0.values("X-Forwarded-For") } == [[row.client], [row.client]])
        }
    }

    @Test("a PROXY header arrives in pieces, with the request behind it")
    func pieces() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(Self.file(backend, "proxyProtocol: true"))
            for header in Self.headers {
                let wire = try node.connect()
                for byte in header.bytes + Array(Self.request.utf8) { try wire.send([byte]) }
                #expect(try wire.readResponse().status == 200)
            }
            #expect(backend.requests.map { $0.value("X-Forwarded-For") } == Self.headers.map(\.client))
        }
    }

    @Test("a proxy that a PROXY header names is believed in its turn")
    func nested() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(Self.file(backend, "proxyProtocol: true"))
            let wire = try node.connect()
            try wire.send(
                "PROXY TCP4 10.0.0.5 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.7\r\n"
                    + "X-Real-IP: 6.6.6.6\r\n\r\n")
            #expect(try wire.readResponse().status == 200)
            #expect(backend.requests.first?.values("X-Forwarded-For") == ["6.6.6.6, 203.0.113.7, 10.0.0.5"])
            #expect(backend.requests.first?.values("X-Real-IP") == ["203.0.113.7"])
        }
    }

    @Test("a trusted peer without a PROXY header is not served; an untrusted one has none, and cannot send one")
    func withoutHeader() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(Self.file(backend, "proxyProtocol: true, limits: {headerTimeout: 200ms}"))
            let refused = [
                "GET / HTTP/1.1\r\n", "PROXY TCP4 203.0.113.7\r\n", "\r\n\r\n\u{0}\r\nQUIT\n\u{31}\u{11}\u{0}\u{0}",
            ]
            for text in refused {
                let wire = try node.connect()
                try wire.send(text)
                #expect(try wire.endsHere())
            }
            try eventually("the operator is told") { node.log.contains("refused for their PROXY header count=1 ") }
            // Two followed within the interval: a line at its end will say so, and the counter does by now.
            #expect(try node.admin("/readyz").text.contains("\"refusedProxyHeaders\":3"))
            // Silence ends like that too.
            #expect(try node.connect().endsHere())
            let half = try node.connect()
            try half.send("PROXY TCP4 203.0")
            #expect(try half.endsHere())

            #expect(try node.ask(from: IPAddress("127.0.0.9")).status == 200)
            for header in Self.headers {
                let wire = try node.connect(from: IPAddress("127.0.0.9"))
                try wire.send(header.bytes + Array(Self.request.utf8))
                #expect(try wire.readResponse().status == 400)
            }
            #expect(backend.requests.map { $0.values("X-Forwarded-For") } == [["127.0.0.9"]])
        }
    }

    @Test("one address for limits, hashing, logs and headers, whatever names it")
    func oneAddress() throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let path = "\(directory.path)/access.log"
            let backend = try scene.backend()
            let named = ["203.0.113.7", "2001:db8:1:2:3:4:5:6"]
            for (index, proxyProtocol) in [true, false].enumerated() {
                var file = Self.file(backend, "proxyProtocol: \(proxyProtocol), forwardedHeader: forwarded")
                file.rateLimit = "requestsPerSecond: 1, burstSize: 1"
                let node = try scene.node(file, ["--set", "gateway.accessLog=\(path)"])
                for (place, name) in named.enumerated() {
                    let wire = try node.connect()
                    let node = name.contains(":") ? "\"[\(name)]:1\"" : name
                    let header =
                        "PROXY \(name.contains(":") ? "TCP6" : "TCP4") \(name) \(place == 0 ? "10.0.0.1" : "::1") 1 2\r\n"
                    let request =
                        "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 6.6.6.6\r\n"
                        + (proxyProtocol
                            ? "Forwarded: for=6.6.6.6\r\n\r\n" : "Forwarded: for=6.6.6.6, for=\(node)\r\n\r\n")
                    try wire.send((proxyProtocol ? header : "") + request)
                    // A second one of the same client meets the limit, which another client does not share.
                    #expect(try wire.readResponse().status == 200)
                    try wire.send(request)
                    #expect(try wire.readResponse().status == 429)
                    let seen = try #require(backend.requests.last?.value("X-Forwarded-For"))
                    #expect(seen == (proxyProtocol ? name : "\(name), 127.0.0.1"))
                }
                #expect(try node.terminate() == 0)
                let lines = readFile(path).split(separator: "\n").dropFirst(4 * index)
                #expect(lines.count == 4)
                for (line, name) in zip(lines, named.flatMap { [$0, $0] }) {
                    #expect(line.split(separator: " ").dropFirst().first.map(String.init) == name)
                }
            }
        }
    }

    @Test("of the two headers only the one that is named is believed, and the other reaches no backend")
    func oneHeader() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let both = "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.8\r\n"
            for header in ["x-forwarded-for", "forwarded"] {
                let node = try scene.node(Self.file(backend, "forwardedHeader: \(header)"))
                #expect(try node.ask(fields: both).status == 200)
            }
            let requests = backend.requests
            #expect(requests[0].values("X-Forwarded-For") == ["203.0.113.7, 127.0.0.1"])
            #expect(requests[0].values("Forwarded").isEmpty)
            #expect(requests[1].values("X-Forwarded-For") == ["203.0.113.8, 127.0.0.1"])
            #expect(requests[1].values("Forwarded") == ["for=203.0.113.8, for=127.0.0.1;host=\"test\";proto=http"])
        }
    }

    @Test("by which scheme a client asked is what a trusted proxy says, in the header that is believed")
    func scheme() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let stranger = try #require(IPAddress("127.0.0.9"))
            for (header, fields, source, expected) in [
                ("x-forwarded-for", "X-Forwarded-Proto: HTTPS\r\n", nil, "https"),
                ("x-forwarded-for", "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n", nil, "https"),
                ("x-forwarded-for", "X-Forwarded-Proto: http\r\n", nil, "http"),
                ("x-forwarded-for", "X-Forwarded-Proto: https, http\r\n", nil, "http"),
                ("x-forwarded-for", "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\n", nil, "http"),
                ("x-forwarded-for", "Forwarded: for=203.0.113.7;proto=https\r\n", nil, "http"),
                ("x-forwarded-for", "X-Forwarded-Proto: https\r\n", stranger, "http"),
                ("forwarded", "Forwarded: for=203.0.113.7;proto=https\r\n", nil, "https"),
                ("forwarded", "X-Forwarded-Proto: https\r\n", nil, "http"),
            ] as [(String, String, IPAddress?, String)] {
                var file = File([
                    File.Service(
                        path: "/", urls: [backend.url],
                        more: "transforms: {request: {set: {X-Scheme: \"{scheme}\"}}}")
                ])
                file.gateway = Self.file(backend, "forwardedHeader: \(header)").gateway
                let node = try scene.node(file)
                #expect(try node.ask(fields: fields, from: source).status == 200)
                #expect(backend.requests.last?.values("X-Scheme") == [expected], "\(header), \(fields)")
                #expect(try node.terminate() == 0)
            }
        }
    }

    @Test("a client's limit on connections goes by the client that a PROXY header names; proxies have none")
    func connectionsPerClient() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            for proxyProtocol in [true, false] {
                let node = try scene.node(
                    Self.file(backend, "proxyProtocol: \(proxyProtocol), limits: {connectionsPerClient: 2}"))
                func served(_ wire: Wire, _ client: String) throws -> Bool {
                    let header = proxyProtocol ? "PROXY TCP4 \(client) 127.0.0.1 1 2\r\n" : ""
                    do {
                        try wire.send(header + Self.request)
                        return try wire.readResponse().status == 200
                    } catch WireError.ended, WireError.reset {
                        return false
                    }
                }
                let wires = try (0..<4).map { _ in try node.connect() }
                #expect(
                    try wires.map { try served($0, "203.0.113.7") } == [true, true, !proxyProtocol, !proxyProtocol])
                #expect(try served(try node.connect(), "203.0.113.8"))
                let own = try (0..<3).map { _ in try node.connect(from: IPAddress("127.0.0.9")) }
                for wire in own[..<2] {
                    try wire.send(Self.request)
                    #expect(try wire.readResponse().status == 200)
                }
                #expect(try own[2].endsHere())
                // A place that is given back is free again.
                wires[0].close()
                own[0].close()
                try eventually("the client may connect again") { try served(try node.connect(), "203.0.113.7") }
                #expect(try node.admin("/readyz").text.contains("\"refused\":"))
            }
        }
    }

    // MARK: Reloads

    private static let forged =
        "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
        + "X-Request-Id: forged\r\n\r\n"

    /// What the backend hears of a request that claims all of it.
    private static func claimed(_ wire: Wire, _ backend: RecordingBackend) throws -> [String?] {
        try wire.send(forged)
        #expect(try wire.readResponse().status == 200)
        let request = try #require(backend.requests.last)
        let name = request.value("X-Request-Id")
        return [
            request.value("X-Forwarded-For"), request.value("X-Forwarded-Proto"), name == "forged" ? name : nil,
        ]
    }

    @Test("whom to trust is asked anew for the next request of an open connection, wholly")
    func reloadedTrust() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            func yaml(_ proxies: String) -> String {
                file.gateway =
                    "requestID: {accept: trusted}, trustedProxies: [\(proxies)], limits: {connectionsPerClient: 1}"
                return file.yaml
            }
            _ = yaml("127.0.0.1/32")
            let node = try scene.node(file)
            let wire = try node.connect()
            let (believed, own): ([String?], [String?]) = (
                ["203.0.113.7, 127.0.0.1", "https", "forged"], ["127.0.0.1", "http", nil]
            )
            #expect(try Self.claimed(wire, backend) == believed)
            for _ in 0..<2 {
                try node.reload(yaml(""))
                for _ in 0..<2 { #expect(try Self.claimed(wire, backend) == own) }
                // It counts as its client's connection from now on.
                #expect(try node.connect().endsHere())
                try node.reload(yaml("127.0.0.1/32"))
                for _ in 0..<2 { #expect(try Self.claimed(wire, backend) == believed) }
                for _ in 0..<2 { #expect(try node.ask().status == 200) }
            }
            wire.close()
            try node.reload(yaml(""))
            try eventually("nothing is counted of it any more") { (try? node.ask().status) == 200 }
        }
    }

    @Test("a reload leaves a connection to whom its PROXY header names, and believes none that had to have one")
    func reloadedTrustOfBalancers() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            func yaml(_ proxies: String) -> String {
                file.gateway = "proxyProtocol: true, trustedProxies: [\(proxies)]"
                return file.yaml
            }
            _ = yaml("127.0.0.1/32")
            let node = try scene.node(file)
            func connected(_ header: String) throws -> Wire {
                let wire = try node.connect()
                try wire.send(header)
                return wire
            }
            let named = try connected("PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n")
            let nested = try connected("PROXY TCP4 10.0.0.5 127.0.0.1 1 2\r\n")
            let unnamed = try connected("PROXY UNKNOWN\r\n")
            let unsaid = try node.connect()
            func heard(_ wires: [Wire]) throws -> [String?] { try wires.map { try Self.claimed($0, backend)[0] } }
            #expect(try heard([named, nested, unnamed]) == ["203.0.113.9", "10.0.0.5", "127.0.0.1"])
            try node.reload(yaml("10.0.0.0/8"))
            // The last one's peer is nobody's balancer any more, so it is a client.
            #expect(
                try heard([named, nested, unnamed, unsaid])
                    == ["203.0.113.9", "203.0.113.7, 10.0.0.5", "127.0.0.1", "127.0.0.1"])
            try node.reload(yaml("127.0.0.1/32"))
            #expect(
                try heard([named, nested, unnamed, unsaid]) == ["203.0.113.9", "10.0.0.5", "127.0.0.1", "127.0.0.1"])
        }
    }
}
