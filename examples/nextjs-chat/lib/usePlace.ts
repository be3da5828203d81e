import { generateId } from "ai";
import { useCallback, useEffect, useState } from "react";

/** The conversation that is open. `id` is null until it is stored. `key` stays the same when it gets its id. */
export interface Place {
  key: string;
  id: string | null;
}

const UNKNOWN: Place = { key: "", id: null }; // until the page knows its URL, nothing is read or stored

/** Follow the hash of the URL, which is the conversation's id. It survives a reload, and the back button works. */
export function usePlace() {
  const [place, setPlace] = useState(UNKNOWN);

  useEffect(() => {
    const follow = () => {
      const id = location.hash.slice(1) || null;
      setPlace({ key: id ?? generateId(), id });
    };
    follow();
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);

  /** Give the open conversation its id, without opening it anew. */
  const setId = useCallback((id: string) => {
    history.replaceState(null, "", `#${id}`);
    setPlace(({ key }) => ({ key, id }));
  }, []);

  return { ...place, setId };
}
