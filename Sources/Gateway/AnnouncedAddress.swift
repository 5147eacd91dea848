import LinuxIO
import Primitives

extension SocketAddress {
    /// What a node tells others of where it listens. All interfaces are no place that anybody could go to, and read the
    /// same for every node: its host's name stands in for them.
    func announced(host: @autoclosure () -> String = HostNames.local()) -> String {
        ip.isUnspecified ? "\(host()):\(port)" : description
    }
}
