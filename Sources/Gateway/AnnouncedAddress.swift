import LinuxIO
import Primitives

extension SocketAddress {
    /// What a node tells others of where it listens. All interfaces are no place that anybody could go to, and read the
    /// same for every node: its host's name stands in for them.
    func announced(host: @autoclosure () -> String = HostNames.local()) -> String {
        ip.isUnspecified ? "\(host()):\(port)" : description
    }

    /// Where others that share its Redis find a node that listens here; `nil` where they cannot. Of all interfaces it is
    /// the one that leads to Redis. One that leads nowhere but to this host is for those who have Redis on it too.
    ///
    /// - Parameter local: this host's end of a connection to Redis; `nil` of a unix socket.
    func reach(onNetworkOf local: SocketAddress?) -> SocketAddress? {
        let own = local?.ip.unmapped ?? IPAddress(v4: 0x7f00_0001)
        if ip.isLoopback { return own.isLoopback ? self : nil }
        guard ip.isUnspecified else { return self }
        return ip.family == .v4 && own.family == .v6 ? nil : SocketAddress(ip: own, port: port)
    }
}
