const PATHS = {
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5",
  copy: "M9 9h9.5a1.5 1.5 0 0 1 1.5 1.5V20a1.5 1.5 0 0 1-1.5 1.5H9A1.5 1.5 0 0 1 7.5 20v-9.5A1.5 1.5 0 0 1 9 9ZM16 5.5V5a1.5 1.5 0 0 0-1.5-1.5H5A1.5 1.5 0 0 0 3.5 5v9.5A1.5 1.5 0 0 0 5 16",
  delete: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7",
  done: "M5 12.5 10 17.5 19.5 7",
  down: "M12 5v14M6 13l6 6 6-6",
  menu: "M4 7h16M4 12h16M4 17h10",
  new: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
};

/** Decorative icon. The surrounding element has the accessible name. */
export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
