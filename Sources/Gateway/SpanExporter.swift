// Sends spans to a collector: OTLP over HTTP, in JSON (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
//
// A thread and a loop of its own. Workers put spans into a queue of bounded length and never wait; a collector that hangs,
// lies or is gone costs spans, which are counted.

import Configuration
import EventLoop
import HTTP1
import LinuxIO
import Primitives
import Synchronization

/// What has become of the spans of a node, over all configurations.
package final class SpanCounts: Sendable {
    package enum Loss: Int, CaseIterable, Sendable {
        /// Too many waited.
        case queueFull
        /// The collector did not want them.
        case refused
        /// It could not be reached, or was too slow, for too long.
        case unreachable

        package var name: String {
            switch self {
            case .queueFull: "queue_full"
            case .refused: "refused"
            case .unreachable: "unreachable"
            }
        }
    }

    private let exportedCount = Atomic<Int>(0)
    private let failureCount = Atomic<Int>(0)
    private let lost: Mutex<[Int]> = Mutex(Loss.allCases.map { _ in 0 })

    /// Spans that a collector has taken.
    package var exported: Int { exportedCount.load(ordering: .relaxed) }
    /// Times that a batch could not be delivered.
    package var failures: Int { failureCount.load(ordering: .relaxed) }
    /// Spans that nobody will see.
    package func dropped(_ loss: Loss) -> Int { lost.withLock { $0[loss.rawValue] } }

    func export(_ count: Int) { exportedCount.wrappingAdd(count, ordering: .relaxed) }
    func failed() { failureCount.wrappingAdd(1, ordering: .relaxed) }
    func drop(_ count: Int, _ loss: Loss) { if count > 0 { lost.withLock { $0[loss.rawValue] += count } } }
}

/// The side that workers see.
final class SpanExporter: Sendable {
    enum Message: Sendable {
        /// A batch has come together.
        case due
        case resolved(Resolver.Answer)
        case stop
    }

    struct Batch: Sendable {
        var chunks: [(bytes: [UInt8], count: Int)] = []
        var count = 0
        var isEmpty: Bool { count == 0 }
    }

    let settings: Configuration.OTLP
    let counts: SpanCounts
    let mailbox: Mailbox<Message>
    let resolver: Resolver
    let seed: UInt64
    /// What stands before the spans of a request.
    let opening: [UInt8]
    private let waker: Waker
    private let queue = Mutex<Batch>(Batch())

    /// As many as OpenTelemetry's own exporters send at a time.
    static let batchMax = 512

    init(
        _ settings: Configuration.OTLP, node: String, resolver: Resolver, counts: SpanCounts, seed: UInt64
    ) throws(SystemError) {
        self.settings = settings
        self.counts = counts
        self.resolver = resolver
        self.seed = seed
        waker = try Waker()
        mailbox = Mailbox(waker: waker)
        func attribute(_ key: String, _ value: String) -> String {
            "{\"key\":\"\(key)\",\"value\":{\"stringValue\":\"\(Self.escaped(value))\"}}"
        }
        let resource = [
            attribute("service.name", settings.serviceName), attribute("service.instance.id", node),
            attribute("service.version", Build.version),
        ]
        opening = Array(
            ("{\"resourceSpans\":[{\"resource\":{\"attributes\":[\(resource.joined(separator: ","))]},"
                + "\"scopeSpans\":[{\"scope\":{\"name\":\"sluice\",\"version\":\"\(Build.version)\"},\"spans\":[").utf8)
    }

    static let closing = Array("]}]}]}".utf8)

    private static func escaped(_ text: String) -> String {
        var buffer = ByteBuffer()
        buffer.appendEscaped(Array(text.utf8).span)
        return buffer.text
    }

    /// Takes spans, or drops them where too many wait. Never waits.
    func add(_ spans: [UInt8], count: Int) {
        let (accepted, isDue) = queue.withLock { queue in
            guard queue.count + count <= settings.queue else { return (false, false) }
            let before = queue.count
            queue.chunks.append((spans, count))
            queue.count += count
            return (true, before < Self.batchMax && queue.count >= Self.batchMax)
        }
        if !accepted { counts.drop(count, .queueFull) }
        if isDue { mailbox.post(.due) }
    }

    var hasBatch: Bool { queue.withLock { $0.count >= Self.batchMax } }

    func takeBatch() -> Batch {
        queue.withLock { queue in
            var batch = Batch()
            var taken = 0
            while taken < queue.chunks.count, batch.count < Self.batchMax {
                batch.chunks.append(queue.chunks[taken])
                batch.count += queue.chunks[taken].count
                taken += 1
            }
            queue.chunks.removeFirst(taken)
            queue.count -= batch.count
            return batch
        }
    }

    /// Runs until `stop`, on a thread of its own.
    func start(_ note: @escaping @Sendable (String, [String: String]) -> Void) -> OSThread {
        OSThread(name: "spans") { [self] in
            do {
                let loop = try Loop(waker: waker)
                let desk = SpanDesk(self, loop: loop, note: note)
                desk.start()
                loop.run()
                desk.close()
            } catch {
                note("spans are not exported", ["reason": "\(error)"])
            }
        }
    }

    /// Sends what is left, for a moment at most, and ends.
    func stop() { mailbox.post(.stop) }
}
