// What a service changes of requests and answers, prepared once. A service without any has none, and its requests meet
// one comparison with nothing.

import Compression
import Configuration
import HTTP1
import LinuxIO
import Primitives
import Transforms

final class ServiceTransforms: Sendable {
    let settings: Configuration.Transforms
    /// Of requests: what is removed, and what is set anew.
    let requestDropped: FoldedNames
    /// Of answers, what the backend says of other origins among it where the gateway decides on these.
    let responseDropped: FoldedNames
    /// The same for answers that are compressed on their way.
    let compressedDropped: FoldedNames
    /// The same names, for trailers.
    let requestGuarded: GuardedNames
    let responseGuarded: GuardedNames
    /// Whether answers speak of who asks.
    let tellsCaller: Bool
    /// Clients that are served during maintenance.
    let maintenanceGuests: [CIDR]

    init?(_ settings: Configuration.Transforms?) {
        guard let settings else { return nil }
        self.settings = settings
        let requestNames = settings.request.set.map(\.name) + settings.request.remove
        requestDropped = FoldedNames(requestNames)
        requestGuarded = GuardedNames(requestNames)
        tellsCaller = (settings.response.set + settings.response.add).contains { field in
            field.value.variables.contains(where: \.isOfCaller)
        }
        let names = settings.response.set.map(\.name) + settings.response.remove
        responseGuarded = GuardedNames(names)
        let prefixes = settings.cors == nil ? [] : ["access-control-"]
        responseDropped = FoldedNames(names, prefixes: prefixes)
        // RFC 9110 §14.3: ranges of the compressed content are not to be had.
        compressedDropped = FoldedNames(names + ["content-length", "accept-ranges"], prefixes: prefixes)
        maintenanceGuests = settings.maintenance?.allow ?? []
    }
}

/// The transforms of one request.
final class TransformedExchange {
    let transforms: ServiceTransforms
    /// The lines that its answer gets in place of those of the same names. An answer of the gateway's own keeps what it
    /// says of itself, and gets these where it has none of that name.
    var linesInPlace: [UInt8] = []
    /// Those that it gets in any case.
    var linesBeside: [UInt8] = []
    var isUnderMaintenance = false
    var wantsGzip = false
    /// The tags of what the client has already (If-None-Match).
    var knownTags: [UInt8] = []
    fileprivate(set) var gzip: GzipLease?

    init(_ transforms: ServiceTransforms) { self.transforms = transforms }

    /// Takes an encoder; `false` where there is none to be had.
    func beginGzip(_ pool: GzipPool, level: Int) -> Bool {
        gzip = pool.lease(level: level)
        return gzip != nil
    }

    func endGzip() { gzip = nil }
}

/// The encoders of a worker: those that are at work, counted, and some that wait for more.
final class GzipPool {
    private var idle: [GzipStream] = []
    private var count = 0
    /// Memory of all, at work or not.
    var bytes: Int { (count + idle.count) * GzipStream.bytes }

    fileprivate func lease(level: Int) -> GzipLease? {
        guard count < DataPathLimits.gzipStreamsMax else { return nil }
        if let index = idle.lastIndex(where: { $0.level == level }) {
            count += 1
            return GzipLease(idle.remove(at: index), self)
        }
        guard let stream = GzipStream(level: level) else { return nil }
        count += 1
        return GzipLease(stream, self)
    }

    fileprivate func returned(_ stream: GzipStream) {
        count -= 1
        guard idle.count < DataPathLimits.gzipStreamsKept else { return }
        stream.reset()
        idle.append(stream)
    }
}

/// One answer's encoder, which goes back to the pool with it, however it ends.
final class GzipLease {
    let stream: GzipStream
    /// What has been made and not been sent.
    var made = ByteBuffer()
    private let pool: GzipPool

    fileprivate init(_ stream: GzipStream, _ pool: GzipPool) {
        self.stream = stream
        self.pool = pool
    }

    deinit { pool.returned(stream) }
}
