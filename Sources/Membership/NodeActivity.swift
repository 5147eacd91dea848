// What a node tells of its traffic with each heartbeat, so that any node can show the cluster. For people to read;
// nothing is decided by it.

package import Primitives

package struct NodeActivity: Hashable, Codable, Sendable {
    /// Over the last two seconds.
    package var requestsPerSecond: Double
    package var errorsPerSecond: Double
    package var p99Microseconds: Int64
    package var version: String
    /// Equal where the configuration is.
    package var configuration: String

    package init(
        requestsPerSecond: Double, errorsPerSecond: Double, p99: TimeSpan, version: String, configuration: String
    ) {
        // Whole tenths are short in JSON.
        self.requestsPerSecond = (requestsPerSecond * 10).rounded() / 10
        self.errorsPerSecond = (errorsPerSecond * 10).rounded() / 10
        p99Microseconds = p99.microseconds
        self.version = version
        self.configuration = configuration
    }

    /// Whether a node may have written it: whoever can write to Redis can write here.
    var isPlausible: Bool {
        requestsPerSecond.isFinite && requestsPerSecond >= 0 && errorsPerSecond.isFinite && errorsPerSecond >= 0
            && p99Microseconds >= 0 && isShort(version) && isShort(configuration)
    }

    private func isShort(_ text: String) -> Bool {
        text.utf8.count <= 64 && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f }
    }
}
