import { useCallback, useEffect, useState } from "react";
import { fetchModels, KeyNeeded, toSentence } from "./server";

const CHOICE = "openai-compat.model";

/** The models of the server, the one that is chosen ("" for the server's default), and what hinders. */
export interface Models {
  names: string[];
  chosen: string;
  choose: (name: string) => void;
  problem: string | null;
  needsKey: boolean;
  reload: () => void;
}

type Found = Pick<Models, "names" | "problem" | "needsKey">;

export function useModels(): Models {
  const [found, setFound] = useState<Found>({ names: [], problem: null, needsKey: false });
  const [wish, setWish] = useState("");
  const [round, setRound] = useState(0);

  useEffect(() => setWish(localStorage.getItem(CHOICE) ?? ""), []);

  useEffect(() => {
    const controller = new AbortController();
    fetchModels(controller.signal).then(
      (names) => setFound({ names, problem: null, needsKey: false }),
      (error: Error) => {
        if (controller.signal.aborted) return;
        const needsKey = error instanceof KeyNeeded;
        setFound({ names: [], problem: needsKey ? null : toSentence(error), needsKey });
      },
    );
    return () => controller.abort();
  }, [round]);

  const choose = useCallback((name: string) => {
    localStorage.setItem(CHOICE, name);
    setWish(name);
  }, []);
  const reload = useCallback(() => setRound((count) => count + 1), []);

  // A model that is gone is not asked for.
  return { ...found, chosen: found.names.includes(wish) ? wish : "", choose, reload };
}
