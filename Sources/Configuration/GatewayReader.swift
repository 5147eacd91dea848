// The sections `gateway` and `rateLimit`: which keys there are, and what each may hold.

import Primitives

extension Configuration.Gateway {
    init(_ map: MappingReader) {
        port = map.read("port", default: Defaults.port) { text throws(Invalid) in try ListenAddress(parsing: text) }
        timeout = map.read("timeout", default: Defaults.timeout) { text throws(Invalid) in
            try durationOrNone(text, bareSeconds: true)
        }
        admin = map.read("admin", default: nil) { text throws(Invalid) in
            text.isEmpty ? nil : try ListenAddress(parsing: text)
        }
        adminToken = map.read("adminToken", default: nil) { text throws(Invalid) in try Self.secret(text) }
        workers = map.read("workers", default: .auto) { text throws(Invalid) in try Self.workers(text) }
        logFormat = map.read("logFormat", default: .text, choice)
        (accessLog, accessLogFormat, accessLogFields) = Self.accessLog(map, format: logFormat)
        requestID = Self.requestID(map)
        logLevel = map.read("logLevel", default: .info, choice)
        via = map.read("via", default: Defaults.via) { text throws(Invalid) in
            try token(text, max: Bounds.viaBytesMax)
        }
        trustedProxies = map.readList("trustedProxies", default: [], max: Bounds.trustedProxiesMax, cidr)
        forwardedHeader = map.read("forwardedHeader", default: .xForwardedFor, choice)
        proxyProtocol = map.read("proxyProtocol", default: false, boolean)
        if proxyProtocol, !map.has("trustedProxies") {
            map.report("is believed of trusted peers only; name them in gateway.trustedProxies", at: "proxyProtocol")
        }
        heartbeat = map.read("heartbeat", default: Defaults.heartbeat) { text throws(Invalid) in
            try duration(text, in: .milliseconds(50) ... .seconds(60))
        }
        drain = Configuration.Drain(map.section("drain"))
        watchConfig = map.read("watchConfig", default: false, boolean)
        limits = Configuration.Limits(map.section("limits"))
        if let admin, admin.overlaps(port) {
            map.report("overlaps gateway.port, which is \(port); give it a port of its own", at: "admin")
        } else if let admin, adminToken == nil, !(admin.host?.isLoopback ?? false) {
            map.report(
                "listens beyond this machine, so it wants gateway.adminToken: write ${SLUICE_ADMIN_TOKEN} there, or an address such as 127.0.0.1:\(admin.port) here",
                at: "admin")
        }
        map.finish()
    }

    /// It travels in a field of a request (RFC 6750 §2.1). The error does not quote it.
    private static func secret(_ text: String) throws(Invalid) -> String? {
        if text.isEmpty { return nil }
        guard text.utf8.count >= Bounds.tokenBytesMin, text.utf8.count <= Bounds.nameBytesMax,
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
        else {
            throw Invalid(
                "a token has \(Bounds.tokenBytesMin) to \(Bounds.nameBytesMax) characters without spaces; write another"
            )
        }
        return text
    }

    private static func workers(_ text: String) throws(Invalid) -> Configuration.Workers {
        if text == "auto" { return .auto }
        guard let count = try? integer(text, in: 1...Bounds.workersMax) else {
            throw Invalid("\(quoted(text)) is not a number of workers; write auto, or 1...\(Bounds.workersMax)")
        }
        return .count(count)
    }
}

extension Configuration.Drain {
    init(_ map: MappingReader) {
        func span(_ key: String, _ standard: TimeSpan) -> TimeSpan {
            map.read(key, default: standard) { text throws(Invalid) in
                try duration(text, in: .zero...Bounds.timeoutMax)
            }
        }
        delay = span("delay", Defaults.drainDelay)
        timeout = span("timeout", Defaults.drainTimeout)
        map.finish()
    }
}

extension Configuration.Limits {
    init(_ map: MappingReader) {
        func bytes(_ key: String, _ standard: ByteCount?, min: Int, max: ByteCount) -> ByteCount? {
            map.read(key, default: standard) { text throws(Invalid) in
                try sizeOrNone(text, min: .bytes(min), max: max)
            }
        }
        func count(_ key: String, _ standard: Int?) -> Int? {
            map.read(key, default: standard) { text throws(Invalid) in
                try integerOrNone(text, max: Bounds.countMax)
            }
        }
        func span(_ key: String, _ standard: TimeSpan?) -> TimeSpan? {
            map.read(key, default: standard) { text throws(Invalid) in try durationOrNone(text) }
        }
        requestLineBytes = bytes("requestLineBytes", Defaults.requestLineBytes, min: 16, max: .mebibytes(16))
        headerBytes = bytes("headerBytes", Defaults.headerBytes, min: 16, max: .mebibytes(16))
        headerCount = count("headerCount", Defaults.headerCount)
        bodyBytes = bytes("bodyBytes", Defaults.bodyBytes, min: 1, max: Bounds.bytesMax)
        headerTimeout = span("headerTimeout", Defaults.headerTimeout)
        bodyTimeout = span("bodyTimeout", Defaults.bodyTimeout)
        minBodyRate = bytes("minBodyRate", Defaults.minBodyRate, min: 1, max: .mebibytes(16))
        minReadRate = bytes("minReadRate", Defaults.minReadRate, min: 1, max: .mebibytes(16))
        rateGrace = map.read("rateGrace", default: Defaults.rateGrace) { text throws(Invalid) in
            try duration(text, in: .milliseconds(10)...Bounds.timeoutMax)
        }
        keepAliveTimeout = span("keepAliveTimeout", Defaults.keepAliveTimeout)
        idleTimeout = span("idleTimeout", Defaults.idleTimeout)
        requestsPerConnection = count("requestsPerConnection", Defaults.requestsPerConnection)
        connections = count("connections", Defaults.connections)
        connectionsPerClient = count("connectionsPerClient", Defaults.connectionsPerClient)
        map.finish()
    }
}

extension Configuration.RateLimit {
    init(_ map: MappingReader) {
        let rate: Int? = map.read("requestsPerSecond", default: nil) { text throws(Invalid) in
            try integer(text, in: 1...Bounds.rateMax)
        }
        requestsPerSecond = rate
        burstSize = map.read("burstSize", default: rate) { text throws(Invalid) in
            try integer(text, in: 1...Bounds.rateMax)
        }
        redisURL = map.read("redisURL", default: nil) { text throws(Invalid) in
            text.isEmpty ? nil : try RedisURL(parsing: text)
        }
        timeout = map.read("timeout", default: Defaults.redisTimeout) { text throws(Invalid) in
            try duration(text, in: .milliseconds(1) ... .seconds(10))
        }
        onRedisLoss = map.read("onRedisLoss", default: .share, choice)
        decisionLog = map.read("decisionLog", default: nil) { text throws(Invalid) in
            guard text.isEmpty || text.contains("/") else {
                throw Invalid("\(quoted(text)) is not a path with a slash; write one such as ./decisions.log")
            }
            return text.isEmpty ? nil : text
        }
        policies = Configuration.Policy.list(map)
        headers = map.read("headers", default: map.has("policies") ? .all : .refused, choice)
        legacyHeaders = map.read("legacyHeaders", default: false, boolean)
        if !map.has("requestsPerSecond") {
            if map.has("burstSize") {
                map.report("has no effect without requestsPerSecond; set that too, or remove this", at: "burstSize")
            }
        }
        map.finish()
    }
}
