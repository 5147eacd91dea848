// What the way of a request bounds whatever the configuration says, each number with its reason. What operators choose,
// and its defaults, is in `Configuration/Limits.swift`; what the codec bounds is in `HTTP1/CodecLimits.swift`.

package import Primitives

package enum DataPathLimits {
    // MARK: Reading

    /// One read: as much as a loopback segment train holds; more would only push caches aside.
    static let readBytes = 64 << 10
    /// Reads of a turn: what one fast peer may take before the others have their turn.
    static let readsPerTurn = 4

    // MARK: Requests

    /// What is kept of a request so that it can be sent again, and what one read may add: beyond it a request is not
    /// retried.
    static let replayBytesMax = 64 << 10
    /// A body that nobody wants is read up to here to keep the connection; beyond it, closing is cheaper.
    static let discardBytesMax = 256 << 10
    /// What a connection keeps for the next request's head.
    static let outboundBytesKept = 2 << 10
    /// A request that was told that it is not the trial of a half-open backend costs a trip to the control loop; others
    /// need not make it at once.
    static let trialPause = TimeSpan.milliseconds(100)

    /// A rewritten path, which a pattern can make longer than what the client sent; 414 beyond.
    static let rewrittenPathBytesMax = 16 << 10

    // MARK: Answers

    /// Interim answers to one request. Real servers send one 100, a few 103, and 102 now and then within the response
    /// timeout. A flood of them would keep the exchange, and a client that waits for its end, busy with nothing.
    static let interimsMax = 32
    /// Up to here copying a body behind its head is cheaper than a call with two pieces.
    static let copiedBytesMax = 2 << 10

    /// Answers that a worker compresses at a time, each with 128 KiB for its encoder: others pass as they are.
    static let gzipStreamsMax = 1_024
    /// Encoders that a worker keeps for more: making one costs as much as compressing some KiB.
    static let gzipStreamsKept = 16

    /// An answer to the trial of a half-open backend that goes on for longer than this speaks for the backend: all others
    /// wait for the word, and a stream would keep it from them for as long as it lives. What breaks off later counts like
    /// every other failure.
    static let trialAnswerTime = TimeSpan.seconds(1)
    /// An answer that still goes on after this time is a success, since the end of a stream may be hours away. What breaks
    /// off sooner is one failure and no success; so downloads that always break off add up.
    static let standingAnswerTime = TimeSpan.seconds(10)

    // MARK: Ends

    /// How long is read from a client after the last answer before the connection is cut: as long as bytes keep coming
    /// with no longer pause, and in all. Bytes are not counted: a client that sends all of a large upload before it
    /// reads would get a reset for its answer (RFC 9112 §9.6).
    static let lingerPause = TimeSpan.seconds(2)
    static let lingerTime = TimeSpan.seconds(30)
    /// How long a side of a tunnel that was told the end is read on.
    static let tunnelLingerTime = TimeSpan.seconds(2)

    // MARK: Scarcity

    /// Descriptors for listeners, Redis, probes, logs and the admin listener.
    static let descriptorsReserved = 128
    /// However few descriptors there are, so many clients are let in.
    static let connectionsMin = 16
    /// So long without want counts as the end of it: a log line each time would be a flood of its own.
    static let calmTime = TimeSpan.seconds(5)
    /// How often an operator is told of the same kind of refusal.
    static let noteInterval = TimeSpan.seconds(10)
    /// A client that sends its head at all sends it within this time, but for lost packets; those who take longer make
    /// room for others when there is none.
    static let slowHeadTime = TimeSpan.seconds(1)
    /// A sixteenth of the connections is closed at once, so that each look at all of them is worth it and few are closed
    /// for one newcomer; at most as many as one turn accepts.
    static let shedShare = 16
    static let shedMax = 64
    /// Descriptors in reserve: what the clients that were accepted just before the end may need at once. All workers
    /// together hold a sixteenth of all at the most.
    static let sparesMax = 8
    static let sparesShare = 16

    // MARK: Beside the path

    /// Access lines that may wait to be written. Beyond it lines are dropped and counted: a full disk must not stop the
    /// traffic.
    package static let logBytesMax = 8 << 20
    /// How long the end of a node waits for a log whose reader takes nothing.
    package static let logCloseTime = TimeSpan.seconds(5)
    /// The same for events, which are few: minutes of them, whatever goes wrong. The last ones before the end are worth
    /// a second.
    package static let eventBytesMax = 1 << 20
    package static let eventCloseTime = TimeSpan.seconds(1)
    /// What a line of the log holds of one field of a head: room for any browser's name of itself.
    static let notedBytesMax = 1 << 10
    /// A health answer's head is small; more is no health answer.
    static let probeHeadBytesMax = 16 << 10
    /// As much of its body is looked through.
    static let probeTextBytesMax = 64 << 10
    /// How often names are resolved anew. getaddrinfo(3) does not tell how long an answer holds.
    static let resolveInterval = TimeSpan.seconds(10)
    /// How long a node that is gone from Redis is waited for to take a connection: a busy one may take its time.
    static let silenceTimeout = TimeSpan.seconds(1)
    /// Steps in which the share of a backend that has come back grows, and the shortest of them.
    static let slowStartSteps: Int64 = 20
    static let slowStartStepMin = TimeSpan.milliseconds(50)
}
