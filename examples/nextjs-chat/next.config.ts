import type { NextConfig } from "next";
import { SERVER } from "./lib/server";

const isDevelopment = process.env.NODE_ENV === "development";

// The page may load from and connect to itself and the server only, because a model's answer may contain images or
// scripts of other hosts. Next.js starts its pages with inline scripts, which need `unsafe-inline`.
const contentSecurityPolicy = [
  "default-src 'self'",
  `script-src 'self' 'unsafe-inline'${isDevelopment ? " 'unsafe-eval'" : ""}`,
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  `connect-src 'self' ${new URL(SERVER).origin}${isDevelopment ? " ws:" : ""}`,
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const config: NextConfig = {
  poweredByHeader: false,
  devIndicators: false,
  turbopack: { root: import.meta.dirname },
  async headers() {
    const headers = [
      { key: "Content-Security-Policy", value: contentSecurityPolicy },
      { key: "Referrer-Policy", value: "no-referrer" },
      { key: "X-Content-Type-Options", value: "nosniff" },
    ];
    return [{ source: "/:path*", headers }];
  },
};

export default config;
