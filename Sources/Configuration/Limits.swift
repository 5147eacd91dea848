// Every default and every bound of the configuration, each with its reason. Nothing else in this module writes a
// number that an operator could ask about.

import Primitives

/// What the file's reader accepts, so that no file makes it hang or exhaust memory.
enum Bounds {
    /// A service of ten backends takes about 600 bytes: room for 1,700 of them.
    static let fileBytesMax = 1 << 20
    /// Values in one file, aliases expanded. 1,000 services with every key given have about 120,000.
    static let nodesMax = 250_000
    /// The deepest key of ours is five levels down.
    static let depthMax = 32
    /// The YAML library hashes a mapping's keys, and a key built of aliases of aliases costs exponential time before
    /// we see any of it. n aliases expand to at most 3^(n/3) copies: 243 for 16.
    static let aliasesMax = 16
    /// Keys that stand twice and are all told at once: each costs another reading of the text.
    static let repeatedKeysMax = 20
    /// Readings of a text whose sections are misspelt, each of which may show more of them within.
    static let rereadingsMax = 8
    /// Sentinels or servers of a cluster to begin with.
    static let redisAddresses = 32
    /// Beyond this a screen of errors helps nobody.
    static let errorsMax = 100
    /// So that an error stays one line.
    static let quotedScalarsMax = 80
    /// A text far longer than every key is no misspelling of one.
    static let misspeltScalarsMax = 64

    /// Routing looks at every service's prefix, and each has probes and pools of its own.
    static let servicesMax = 1_000
    /// Strategies that look at every backend take about 5 µs for so many, and weighted hashing 16 µs.
    static let instancesMax = 1_024
    static let weightMax = 65_535
    /// The weighted schedule has one entry of two bytes for each unit of weight: at most 128 KiB a service, and 40 ms
    /// to compute for 1,024 backends whenever health changes.
    static let weightSumMax = 65_535
    /// It is part of Redis keys and of each log line.
    static let nameBytesMax = 128
    /// Must leave room for the rest of an 8 KiB request line.
    static let pathBytesMax = 1_024
    static let trustedProxiesMax = 10_000
    /// More loops than this gain nothing on any machine that exists.
    static let workersMax = 1_024
    static let viaBytesMax = 64
    static let upgradesMax = 16
    static let methodsMax = 32
    /// Fields set, added or removed by a service, each: more than a browser and its proxies send.
    static let headerEditsMax = 64
    /// Each request is held against all of them until one fits.
    static let pathRulesMax = 64
    static let patternBytesMax = 512
    static let templateBytesMax = 2_048
    static let corsListMax = 256
    /// Every field that there is, and as many headers.
    static let accessFieldsMax = 64
    /// Spans that wait: of about a kilobyte each.
    static let spanQueueMax = 100_000
    /// The longest method that the gateway reads (RFC 9112 §3: a longer one is 501).
    static let methodBytesMax = 34
    /// More would only make a client wait longer for its 502.
    static let retryAttemptsMax = 10
    /// A cluster is tens of nodes.
    static let quorumMax = 1_000
    static let streakMax = 1_000
    /// Shorter, and it can be guessed through the listener that asks for it.
    static let tokenBytesMin = 12
    /// A probe's head stays within one packet.
    static let probeHeadersMax = 16
    /// As much of an answer is looked through as a health page has.
    static let expectBodyBytesMax = 1_024
    /// The largest rate that fits the seed's form: one admission each nanosecond.
    static let rateMax = 1_000_000_000
    static let countMax = 1_000_000_000
    /// A policy has a number of one byte, and a table of recent admissions in each node.
    static let policiesMax = 32
    /// Policies over one request: one for each kind of key, and some to spare. Each is a transaction in Redis.
    static let policiesPerServiceMax = 8
    static let policyPathsMax = 64
    /// A lease is renewed three times in its life: more often, and renewals would be load; and for longer than an hour
    /// nobody would want to wait for what a dead node held.
    static let leaseMin = TimeSpan.seconds(1)
    static let leaseMax = TimeSpan.seconds(3_600)
    static let leaseDefault = TimeSpan.seconds(10)
    /// Slots that one request can take: entries of one transaction in Redis, half a millisecond of its time.
    static let costMax = 256
    /// Each tier of a policy is a limit of its own, and takes one of the numbers that policies have.
    static let tiersMax = 16
    /// Policies and their tiers together; as many as a limiter takes.
    static let limitsMax = 64
    /// An identity provider or two, and those who leave.
    static let issuersMax = 16
    static let audiencesMax = 16
    static let scopesMax = 16
    /// More belong in Redis, where they can be revoked one by one.
    static let apiKeysMax = 10_000
    /// Users and organisations stand in headers, logs and keys.
    static let identityBytesMax = 256
    /// Shorter than a window of 100 ms, and the error of what a node knows of Redis's clock would be a part of it.
    static let windowMin = TimeSpan.milliseconds(100)
    static let windowMax = TimeSpan.seconds(30 * 86_400)
    static let bytesMax = ByteCount(bytes: 1 << 50)
    static let timeoutMax = TimeSpan.seconds(86_400)
}

/// What counts where the file does not say.
enum Defaults {
    /// The seed's port.
    static let port = ListenAddress(host: nil, port: 8080)
    /// The seed's 30 seconds.
    static let timeout = TimeSpan.seconds(30)
    static let via = "sluice"
    /// What nginx's and Envoy's users call it.
    static let requestIDHeader = "X-Request-Id"
    static let traceServiceName = "sluice"
    /// What OpenTelemetry's own exporters do: 5 s, 10 s, 2,048 spans.
    static let spanInterval = TimeSpan.seconds(5)
    static let spanTimeout = TimeSpan.seconds(10)
    static let spanQueue = 2_048
    /// A lost node is noticed within 1.5 s (three beats); 20 nodes cost Redis 40 small commands a second.
    static let heartbeat = TimeSpan.milliseconds(500)
    /// No balancer in front to wait for, until the operator says so.
    static let drainDelay = TimeSpan.zero
    /// As long as the longest request that `timeout` allows.
    static let drainTimeout = TimeSpan.seconds(30)

    /// RFC 9112 §3 asks for 8,000 octets at least.
    static let requestLineBytes = ByteCount.kibibytes(8)
    /// Room for a browser's 4 KiB of cookies eight times over.
    static let headerBytes = ByteCount.kibibytes(32)
    /// A browser behind two proxies sends about 30.
    static let headerCount = 100
    /// Bodies are streamed with back-pressure: their length costs this node nothing.
    static let bodyBytes: ByteCount? = nil
    /// A head fits one or two packets; slower is a slow link or an attack that holds connections (Slowloris).
    static let headerTimeout = TimeSpan.seconds(10)
    /// Counted without progress, so a slow upload lives as long as it moves.
    static let bodyTimeout = TimeSpan.seconds(30)
    /// A modem of 1980 sends 30 bytes a second, a phone at the edge of its cell some hundred: what is slower for longer
    /// than the grace does not want to be served.
    static let minBodyRate: ByteCount? = .bytes(240)
    static let minReadRate: ByteCount? = .bytes(240)
    /// As long as a body may stand still.
    static let rateGrace = TimeSpan.seconds(30)
    /// So that clients ask the DNS anew and new nodes get their part; nobody notices one handshake an hour.
    static let keepAliveTimeout: TimeSpan? = .seconds(3_600)
    /// Longer than the 60 s of common load balancers, so that they close first and no request is lost in between.
    static let idleTimeout = TimeSpan.seconds(75)
    static let requestsPerConnection: Int? = nil
    /// The descriptor limit bounds it anyway.
    static let connections: Int? = nil
    /// Clients behind one address translator look like one client.
    static let connectionsPerClient: Int? = nil

    /// WebSocket alone: other protocols could carry requests past the gateway's rules.
    static let upgrades = ["websocket"]
    /// A lost SYN is sent again after 1 s (RFC 6298 §2), a second one after 3 s: 2 s forgives the first.
    static let connectTimeout = TimeSpan.seconds(2)
    /// Shorter than the keep-alive of common servers would be safer for the pool, longer kinder to quiet streams.
    static let backendIdleTimeout = TimeSpan.seconds(60)
    /// A WebSocket may be quiet for long where neither end sends pings; an hour without a byte is a peer that is gone.
    static let tunnelTimeout = TimeSpan.seconds(3_600)
    /// As long as the longest request may take by default: time for a conversation to come to its end.
    static let tunnelGrace = TimeSpan.seconds(30)
    /// One backend that fails is bad luck; two are an outage, which more tries make worse.
    static let retryAttempts = 1
    /// Of five requests one may be sent twice: an outage of all backends gets 1.2 times its load, not twice.
    static let retryPercent = 20
    /// One a second, so that a service with a request now and then has retries too.
    static let retryMinimum = 10
    /// A client that has waited so long is about to give up.
    static let retryWithin = TimeSpan.seconds(10)
    /// Enough to serve 64 requests at once without a new connection, few enough that 100 backends fit 8,192
    /// descriptors.
    static let poolIdle = 64
    static let weight = 1

    /// Browsers cut it off at two hours (Chromium) or a day (Firefox).
    static let corsMaxAge = TimeSpan.seconds(600)
    /// What is text in other clothes. Images, films and archives are compressed already.
    static let compressedTypes = [
        "text/html", "text/css", "text/plain", "text/csv", "text/xml", "text/javascript", "application/javascript",
        "application/json", "application/problem+json", "application/xml", "application/xhtml+xml",
        "application/rss+xml", "application/atom+xml", "application/manifest+json", "application/wasm", "image/svg+xml",
    ]
    /// One packet holds it as it is.
    static let compressedMin = 1_024
    /// Each level more takes longer for less: beyond this one the bytes saved are few.
    static let compressionLevel = 4

    static let healthPath = "/health"
    static let expect = StatusSet(ranges: [200...200])
    /// The seed's pace: 30 s when well, faster when in doubt, fastest while down.
    static let interval = TimeSpan.seconds(30)
    static let warningInterval = TimeSpan.seconds(10)
    static let downInterval = TimeSpan.seconds(5)
    static let probeTimeout = TimeSpan.seconds(5)
    /// One failure is noise, three in a row are not.
    static let failures = 3
    static let successes = 3
    /// As long as one warning interval: by then a restarted backend answers again.
    static let cooldown = TimeSpan.seconds(10)
    /// Five doublings of the cooldown; a backend that flaps for longer is looked after by people.
    static let cooldownMax = TimeSpan.seconds(300)
    /// Requests that fail at more than half of a service's backends have a common cause.
    static let maxEjected = 50
    /// Few backends need to warm up.
    static let slowStart = TimeSpan.zero
    static let failureShare = 50
    static let failureWindow = TimeSpan.seconds(10)
    /// Fewer, and chance decides.
    static let failureRequests = 20
    /// The seed's breaker: five failures open it for 30 s.
    static let breakerFailures = 5
    static let breakerOpenFor = TimeSpan.seconds(30)

    /// Clocks that are set by the network lie seconds apart at worst.
    static let tokenLeeway = TimeSpan.seconds(30)

    /// A hundred round trips in one data centre; nobody notices it in front of a request.
    static let redisTimeout = TimeSpan.milliseconds(50)
    static let redisPort: UInt16 = 6379
    static let sentinelPort: UInt16 = 26379
}
